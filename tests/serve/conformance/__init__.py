"""Every strategy on every target that this machine can run, through one set of scenarios."""
