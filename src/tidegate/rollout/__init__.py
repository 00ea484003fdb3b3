"""Rollouts: live traffic shared between versions, judged while it flows, given to the better one or taken back."""
