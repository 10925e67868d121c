"""Reads the weights of models whose files are quantised, one file for each kind."""
