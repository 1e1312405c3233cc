"""Thin command lines over the rooms above."""
