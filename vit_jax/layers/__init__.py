"""The leaves that models share; every trunk is written out in its model."""
