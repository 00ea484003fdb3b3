"""What tidegate does with tools of others that not every project uses; nothing of tidegate imports it."""
