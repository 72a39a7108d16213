"""Fuzz tests of everything that is read from outside.

The quick suite tries a few examples, always the same. A long run tries others:

    FUZZ_EXAMPLES=20000 pytest tests/fuzz
"""
