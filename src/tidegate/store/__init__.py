"""Every durable byte: one primitive, ``put_new``, and what stands on it."""
