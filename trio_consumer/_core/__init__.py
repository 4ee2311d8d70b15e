"""The rules, without I/O: no Trio, no client, no clock, no lock, no log.

Everything here is synchronous code over plain data.  Time is a parameter, and
what has to be done is returned, so that Hypothesis can drive it alone.
"""
