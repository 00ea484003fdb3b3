"""The front: a proxy that shares live traffic between a model's versions, and the processes behind it."""
