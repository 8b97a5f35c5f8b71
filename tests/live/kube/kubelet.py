#!/usr/bin/env python3
"""A kubelet without containers: runs every pod that matches a selector as a local process, as the pod says it.

  kubelet.py --server URL --pods-server URL --ca FILE --token-file FILE --selector app=x --state DIR --logs DIR --program FILE

Binds the pod to a node; writes its ConfigMap volumes and follows them by a swapped link, as a kubelet does; gives it a ServiceAccount's token;
starts --program with the container's args, in which mount paths are replaced; asks its readiness probe; restarts it when it exits; on deletion
sends SIGTERM, after the grace period SIGKILL, and removes the pod. A pod has no network of its own: it
listens on loopback, on a free port, which is written into its configuration in the place of the container's. Pods whose ordinal is at least the number in DIR/hold stay Pending. SIGHUP: new tokens for all.
DIR/POD/ holds pid, port, token and the mounts;
LOGS/POD.log its output. Only the standard library is used.
"""
import argparse, datetime, json, os, signal, socket, ssl, subprocess, sys, threading, time, urllib.error, urllib.request

ap = argparse.ArgumentParser()
for name in ("server", "pods-server", "ca", "token-file", "selector", "state", "logs", "program"):
    ap.add_argument("--" + name, required=True)
ap.add_argument("--namespace", default="default")
ap.add_argument("--node", default="local")
a = ap.parse_args()
TLS, TOKEN = ssl.create_default_context(cafile=a.ca), open(a.token_file).read().strip()
NAMESPACE = f"/api/v1/namespaces/{a.namespace}"
PODS = NAMESPACE + "/pods"
STATE = os.path.abspath(a.state)
stopping, workers = threading.Event(), {}  # workers: pod uid -> Worker


def log(*words):
    sys.stdout.write(" ".join(map(str, (datetime.datetime.now().strftime("%H:%M:%S.%f")[:-3], *words))) + "\n")
    sys.stdout.flush()


def api(method, path, body=None, kind="application/json", timeout=30):
    req = urllib.request.Request(a.server + path, None if body is None else json.dumps(body).encode(), method=method)
    req.add_header("Authorization", f"Bearer {TOKEN}")
    req.add_header("Content-Type", kind)
    return urllib.request.urlopen(req, context=TLS, timeout=timeout)


def call(*args, retry=True, ignore=(404, 409)):
    """The answer; {} for a refusal; None when the server is away and retry is off."""
    while True:
        try:
            with api(*args) as r:
                return json.load(r)
        except urllib.error.HTTPError as e:
            if e.code not in ignore:
                log("api error", args[:2], e.code, e.read()[:200])
            return {}
        except OSError:
            if not retry or stopping.is_set():
                return None
            time.sleep(0.5)


def write(path, text):
    """Whole or not at all: whoever reads it meanwhile sees the old one."""
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


class Worker(threading.Thread):
    def __init__(self, pod):
        super().__init__(daemon=True)
        m = pod["metadata"]
        self.pod, self.name_, self.uid, self.gone, self.grace = pod, m["name"], m["uid"], threading.Event(), 30
        self.container = pod["spec"]["containers"][0]
        tail = self.name_.rsplit("-", 1)[-1]
        self.ordinal = int(tail) if tail.isdigit() else 0
        self.dir = os.path.join(STATE, self.name_)
        self.proc, self.restarts, self.versions = None, 0, {}
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.own_port = str(next((p["containerPort"] for p in self.container.get("ports", [])), 8080))

    def token(self):
        sa = self.pod["spec"].get("serviceAccountName", "default")
        bound = {"apiVersion": "v1", "kind": "Pod", "name": self.name_, "uid": self.uid}
        answer = call("POST", f"{NAMESPACE}/serviceaccounts/{sa}/token", {"spec": {"boundObjectRef": bound}})
        token = (answer or {}).get("status", {}).get("token")
        if token:
            write(os.path.join(self.dir, "token"), token)

    def mounts(self):
        """[(mount path in the container, folder here, ConfigMap's name)]"""
        maps = {v["name"]: v["configMap"]["name"] for v in self.pod["spec"].get("volumes", []) if "configMap" in v}
        return [(m["mountPath"], self.dir + m["mountPath"], maps[m["name"]])
                for m in self.container.get("volumeMounts", []) if m["name"] in maps]

    def follow(self):
        """Brings the ConfigMap volumes up to date: a new folder, then a link swapped in one step."""
        for _, folder, name in self.mounts():
            found = call("GET", f"{NAMESPACE}/configmaps/{name}", retry=self.proc is None)
            if not found or self.versions.get(folder) == found["metadata"]["resourceVersion"]:
                continue
            version = self.versions[folder] = found["metadata"]["resourceVersion"]
            data = found.get("data") or {}
            os.makedirs(os.path.join(folder, "..v" + version), exist_ok=True)
            for key, text in data.items():
                text = text.replace(f'"0.0.0.0:{self.own_port}"', f'"127.0.0.1:{self.port}"')
                with open(os.path.join(folder, "..v" + version, key), "w") as f:
                    f.write(text)
            link = os.path.join(folder, "..data")
            os.symlink("..v" + version, link + ".new")
            os.rename(link + ".new", link)
            here = {n for n in os.listdir(folder) if not n.startswith("..")}
            for key in set(data) - here:
                os.symlink("..data/" + key, os.path.join(folder, key))
            for key in here - set(data):
                os.unlink(os.path.join(folder, key))

    def environment(self):
        env, m = dict(os.environ), self.pod["metadata"]
        fields = {"metadata.name": self.name_, "metadata.namespace": a.namespace, "metadata.uid": m["uid"], "status.podIP": "127.0.0.1"}
        for e in self.container.get("env", []):
            ref = e.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            env[e["name"]] = fields.get(ref, "") if ref else e.get("value", "")
        env.update(HOSTNAME=self.name_)
        if self.pod["spec"].get("automountServiceAccountToken", True):
            conf = {"apiVersion": "v1", "kind": "Config", "current-context": "c",
                    "clusters": [{"name": "c", "cluster": {"server": a.pods_server, "certificate-authority": a.ca}}],
                    "users": [{"name": "c", "user": {"tokenFile": os.path.join(self.dir, "token")}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": a.namespace}}]}
            write(os.path.join(self.dir, "kubeconfig"), json.dumps(conf))
            env["KUBECONFIG"] = os.path.join(self.dir, "kubeconfig")
        return env

    def spawn(self):
        if self.proc is None:
            os.makedirs(self.dir, exist_ok=True)
            self.token()
            self.follow()
            self.env = self.environment()  # once: restarts need no API server
        args = list(self.container.get("args", []))
        for path, folder, _ in self.mounts():
            args = [folder + x[len(path):] if x == path or x.startswith(path + "/") else x for x in args]
        with open(os.path.join(a.logs, self.name_ + ".log"), "ab") as out:
            # setpriv: nothing outlives this kubelet, however it ends.
            self.proc = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", a.program, *args], env=self.env, stdin=subprocess.DEVNULL,
                                         stdout=out, stderr=out, start_new_session=True)
        write(os.path.join(self.dir, "port"), str(self.port))
        write(os.path.join(self.dir, "pid"), str(self.proc.pid))
        log("start", self.name_, "pid", self.proc.pid, "port", self.port)

    def report(self, ready, exit_code=None):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        yes = lambda b: "True" if b else "False"
        state = {"running": {"startedAt": now}} if exit_code is None else {
            "waiting": {"reason": "CrashLoopBackOff", "message": f"exit {exit_code}"}}
        return call("PATCH", f"{PODS}/{self.name_}/status", {"metadata": {"uid": self.uid}, "status": {
            "phase": "Running", "startTime": self.pod["metadata"]["creationTimestamp"], "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [{"type": t, "status": yes(s), "lastTransitionTime": now} for t, s in (
                ("PodScheduled", True), ("Initialized", True), ("ContainersReady", ready), ("Ready", ready))],
            "containerStatuses": [{"name": c["name"], "image": c["image"], "imageID": "local", "ready": ready,
                                   "started": exit_code is None, "restartCount": self.restarts, "state": state}
                                  for c in self.pod["spec"]["containers"]]}}, "application/merge-patch+json", retry=False)

    def is_ready(self):
        probe = self.container.get("readinessProbe", {}).get("httpGet")
        if not probe:
            return True
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{probe['path']}", timeout=1).status < 400
        except OSError:
            return False

    def run(self):
        try:
            self.live()
        except Exception as e:
            log("failed", self.name_, repr(e))

    def held(self):
        try:
            return self.ordinal >= int(open(os.path.join(STATE, "hold")).read())
        except (OSError, ValueError):
            return False

    def live(self):
        while self.held():
            if self.gone.wait(0.2):
                return self.remove()
        if not self.pod["spec"].get("nodeName"):
            call("POST", f"{PODS}/{self.name_}/binding", {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": self.name_},
                 "target": {"apiVersion": "v1", "kind": "Node", "name": a.node}})
        self.spawn()
        ready, looks = None, 0
        while not self.gone.wait(0.3):
            code, looks = self.proc.poll(), looks + 1
            if code is not None:  # restartPolicy Always, with the kubelet's growing pause (capped low for tests)
                self.restarts, ready = self.restarts + 1, None
                log("exit", self.name_, "code", code, "restart", self.restarts)
                self.report(False, code)
                if self.gone.wait(min(0.5 * 2 ** self.restarts, 10)):
                    break
                self.spawn()
            elif (now := self.is_ready()) != ready and self.report(now) is not None:
                ready = now
            elif looks % 5 == 0:
                self.follow()
        self.end()

    def end(self):
        if self.proc.poll() is None:
            log("SIGTERM", self.name_, "pid", self.proc.pid, "grace", self.grace)
            os.killpg(self.proc.pid, signal.SIGTERM)
            try:
                self.proc.wait(self.grace)
            except subprocess.TimeoutExpired:
                log("SIGKILL", self.name_, "pid", self.proc.pid)
                os.killpg(self.proc.pid, signal.SIGKILL)
        log("ended", self.name_, "code", self.proc.wait())
        os.unlink(os.path.join(self.dir, "pid"))
        self.remove()

    def remove(self):
        if not stopping.is_set():
            call("DELETE", f"{PODS}/{self.name_}", {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}})


def see(kind, pod):
    m = pod["metadata"]
    w = workers.get(m["uid"])
    if kind == "DELETED" or m.get("deletionTimestamp"):
        if w:  # force-deleted pods are ended too, at once
            w.grace = m.get("deletionGracePeriodSeconds", 0) if kind != "DELETED" else 0
            w.gone.set()
        elif kind != "DELETED":  # left over from an earlier kubelet: nothing runs for it
            call("DELETE", f"{PODS}/{m['name']}", {"gracePeriodSeconds": 0, "preconditions": {"uid": m["uid"]}})
        if kind == "DELETED":
            workers.pop(m["uid"], None)
    elif not w:
        workers[m["uid"]] = Worker(pod)
        workers[m["uid"]].start()


def watch():
    query = "?labelSelector=" + urllib.request.quote(a.selector)
    while not stopping.is_set():
        try:
            with api("GET", PODS + query) as r:
                pods = json.load(r)
            for uid in set(workers) - {p["metadata"]["uid"] for p in pods["items"]}:
                see("DELETED", workers[uid].pod)
            for p in pods["items"]:
                see("ADDED", p)
            rv = pods["metadata"]["resourceVersion"]
            with api("GET", f"{PODS}{query}&watch=1&resourceVersion={rv}&timeoutSeconds=300", timeout=330) as r:
                for line in r:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    see(event["type"], event["object"])
        except OSError as e:
            log("watch", repr(e))
            time.sleep(0.5)


def rotate(*_):
    log("new tokens")
    for w in list(workers.values()):
        threading.Thread(target=w.token, daemon=True).start()


def stop(*_):
    stopping.set()
    for w in list(workers.values()):
        w.grace = 25
        w.gone.set()
    for w in list(workers.values()):
        w.join(30)
    sys.exit(0)


os.makedirs(STATE, exist_ok=True)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGHUP, rotate)
threading.Thread(target=watch, daemon=True).start()
while True:
    signal.pause()
