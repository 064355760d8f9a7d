"""Tests of `lerax-dist`."""
