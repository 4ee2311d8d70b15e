"""The examples of the pages, run: see blocks.py for how a page says what is to be done with one."""
