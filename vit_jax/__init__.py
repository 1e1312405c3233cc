"""Vision transformers in JAX and Flax: train, evaluate, inspect, export."""
