"""CycleGANs in kernel space, repaired one ingredient after another: which was missing?"""
