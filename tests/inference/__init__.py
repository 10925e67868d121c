"""The inference server: decoding in this process, and the whole service around it."""
