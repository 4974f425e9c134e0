"""Run an experiment: `python launch.py --config=configs/black_cat.py`. See README.md."""

from kernelgan.command import main

if __name__ == "__main__":
    main()
