"""A step inside a pod, the same whichever engine made the pod."""
