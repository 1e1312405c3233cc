"""Pure functions of tensors, without parameters."""
