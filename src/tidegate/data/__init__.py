"""Dataset references: a pin that names bytes for ever, and the digest that proves them."""
