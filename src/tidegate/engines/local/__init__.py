"""The local engine: steps as processes on this machine, in parallel, cached by content."""
