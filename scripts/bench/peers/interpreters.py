"""The floor: ``python interpreters.py chain|fan N X`` starts one bare interpreter a step, and nothing else."""

import subprocess
import sys

WORKLOAD, N, X = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

if __name__ == "__main__":
    if WORKLOAD == "fan":
        command = [sys.executable, "-c", "import time; time.sleep(0.5)"]
        for process in [subprocess.Popen(command) for _ in range(N)]:
            process.wait()
    else:
        for _ in range(N):
            X = int(subprocess.check_output([sys.executable, "-c", f"print({X} + 1)"]))
        print(X)
