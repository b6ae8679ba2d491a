"""Python loops over epochs and passes; no arithmetic on entries."""
