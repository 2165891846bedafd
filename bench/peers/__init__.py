"""Other job systems, each in the best configuration we found for it, doing the same work on the same machine."""
