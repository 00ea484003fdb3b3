"""Runs that start by themselves: watchers of data, and the claims that keep any number of them from running twice."""
