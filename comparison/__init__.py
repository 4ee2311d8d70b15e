"""Two consumers put through the same schedules: Faust's, and this one."""
