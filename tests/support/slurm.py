"""Programs of Slurm, Ray and a stage, as far as tests of cluster/slurm.sh need them where there is no Slurm."""

SRUN = """
import os, signal, subprocess, sys, time
words = [word for word in sys.argv[1:] if not word.startswith("--")]
nodes = range(int(os.environ["SLURM_JOB_NUM_NODES"]))
offers = [{"SLURM_PROCID": str(n), "SLURM_CPUS_ON_NODE": "1", "SLURM_GPUS_ON_NODE": str(n)} for n in nodes]
tasks = [subprocess.Popen(words, env=os.environ | offer, start_new_session=True) for offer in offers]
def send(kind):  # to all that is left of the tasks
    sent = 0
    for task in tasks:
        task.poll()
        try:
            os.killpg(task.pid, kind)
            sent += 1
        except ProcessLookupError:
            pass
    return sent
def end(*_):
    send(signal.SIGTERM)
    until = time.monotonic() + 1
    while send(0) and time.monotonic() < until:
        time.sleep(0.1)
    send(signal.SIGKILL)
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
while not any(task.poll() for task in tasks):
    time.sleep(0.1)
end()  # --kill-on-bad-exit
"""
SCONTROL = """
import os, sys
print(*sys.argv[1:], file=open(os.environ["REQUEUED"], "a"))
"""
RAY = """
import os, signal, socket, sys
if os.environ.get("RAY_IS") == "broken":
    sys.exit("this Ray does not start")
if "--head" in sys.argv:
    server = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    print(os.getpid(), file=open(os.environ["HEAD"], "w"))
signal.pause()
"""
PYTHON = """
import os, sys
print("127.0.0.1") if sys.argv[1] == "-c" else os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
STAGE = """
import signal, sys, time
import ray
ray.init(logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < 2:
    time.sleep(0.5)
def stop(*_):
    print(ray.get(ray.remote(lambda: "saved, with a task").remote()), flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print("words", sys.argv[1:])
print("offers", *sorted(str({key: node["Resources"].get(key) for key in ("CPU", "GPU")}) for node in ray.nodes()))
print("ready", flush=True)
signal.pause()
"""
SAVING = """
import os, signal, time
def save(*_):
    time.sleep(2)
    os.kill(int(open(os.environ["HEAD"]).read()), 0)  # raises where there is no head any more
    print("saved")
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
signal.pause()
"""
