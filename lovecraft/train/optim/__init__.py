"""Optimizers over named parameters, one module each, on the float32 view of a parameter that `view` gives."""
