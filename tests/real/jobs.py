"""An interactive bash on a terminal of its own: ctrl-C, ctrl-Z, jobs, fg, bg, kill, a pipeline as a job, EOF.

Run as a whole under the translator: this script, the shell and its jobs are all guests.
"""
import os, pty, re, select, sys, time

pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(PS1="$ ", TERM="dumb", HISTFILE="")
    os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
text = ""

def until(pattern):
    """Reads until `pattern` has come; forgets everything up to its end."""
    global text
    deadline = time.time() + 60
    while True:
        m = re.search(pattern, text)
        if m:
            text = text[m.end():]
            return m.group(0)
        if not select.select([terminal], [], [], max(0, deadline - time.time()))[0]:
            sys.exit(f"no {pattern!r} in {text!r}")
        try: text += os.read(terminal, 4096).decode().replace("\r", "")
        except OSError: sys.exit(f"end before {pattern!r} in {text!r}")

def say(line): os.write(terminal, line.encode())

until(r"\$ ")
say("stty -echo\n"); until(r"\$ ")
say("echo ready; sleep 100; echo status $?\n"); until("ready\n"); time.sleep(0.3)
say("\x03"); until(r"\$ "); print("interrupted a sleep")
say("sh -c 'echo up; while :; do :; done'\n"); until("up\n"); time.sleep(0.2)
say("\x1a"); print(until(r"\[1\]\+  Stopped")); until(r"\$ ")
say("jobs\n"); print(until(r"\[1\]\+  Stopped")); until(r"\$ ")
say("bg\n"); print(until(r"\[1\]\+ sh -c")); until(r"\$ ")
say("fg\n"); until("sh -c.*\n"); time.sleep(0.2)
say("\x03"); until(r"\$ "); print("interrupted in the foreground")
say("cat | tr a-z A-Z\n"); time.sleep(0.3); say("line\n"); print(until("LINE\n")); say("\x1a"); print(until("Stopped")); until(r"\$ ")
say("fg\n"); until("tr a-z.*\n"); say("more\n"); print(until("MORE\n")); say("\x04"); until(r"\$ ")
say("trap 'echo trapped' INT; sleep 0.3; kill -INT $$\n"); print(until("trapped")); until(r"\$ ")
say("sleep 50 & kill %1; wait %1; echo status $?\n"); print(until(r"status \d+")); until(r"\$ ")
say("exit 7\n")
while True:
    try:
        if not os.read(terminal, 4096): break
    except OSError: break
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
