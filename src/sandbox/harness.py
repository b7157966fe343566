"""The inside of a sandbox: runs each program that is sent in a process of its own.

Three kinds of processes. The server reads fixed headers, forks and waits; it sees neither
programs nor answers, so that nothing of one is in the memory of the next. The child reads its
program, gives up everything but computing, and runs it. The checker, where a test is Python,
reads the test after the child has let go of the socket, and calls the child's function through
two pipes that carry plain values: what a test expects is never in the process that runs the
program, and no object of the program's is ever in the process that judges it.
"""
import atexit, builtins, ctypes, errno, gc, math, os, random, resource, select, signal, struct
import sys, threading, time, types

SOCKET, REPORT, REQUEST, RESPONSE = 0, 3, 4, 5
HEADER, REPLY, LENGTH = struct.Struct("<BBIIIQQI"), struct.Struct("<BiQII"), struct.Struct("<I")
STDIN, CHECK = 0, 1
EXITED, SIGNALLED, WALL, LEFT, LOST = 0, 1, 2, 3, 4
GONE = 3  # The checker's exit code when the child has ended.
PID = b"airt"  # In the filter, where the child's process id belongs.
# What LiveCodeBench puts before a program, in its order: later names hide earlier ones.
LIBRARY = """string re datetime collections heapq bisect copy math random statistics itertools
functools operator io sys json builtins typing""".split()
# The program finds them where it finds what is built in: copying them took half a millisecond.
NAMES = dict(vars(builtins))
exec("".join(f"from {name} import *\n" for name in LIBRARY), NAMES)
exec("".join(f"import {name}\n" for name in LIBRARY), NAMES)

prctl = ctypes.CDLL(None, use_errno=True).prctl
filters = [bytes.fromhex(text) for text in sys.argv[1:]]


def read(fd, size):
    data = bytearray()
    while len(data) < size:
        piece = os.read(fd, min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def take(fd):
    return read(fd, LENGTH.unpack(read(fd, LENGTH.size))[0])


def write(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def give(fd, data):
    write(fd, LENGTH.pack(len(data)) + data)


# Plain values, and nothing else, between the child and the checker.


class Opaque(Exception):
    pass


def pack(value, out):
    if value is None or value is True or value is False:
        out.append({None: b"N", True: b"T", False: b"F"}[value])
    elif isinstance(value, int):
        out.append(b"i%x;" % value if value >= 0 else b"i-%x;" % -value)
    elif isinstance(value, float):
        out.append(b"f" + struct.pack("<d", value))
    elif isinstance(value, complex):
        out.append(b"c" + struct.pack("<dd", value.real, value.imag))
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        out += b"s%d;" % len(data), data
    elif isinstance(value, (bytes, bytearray)):
        out += b"b%d;" % len(value), bytes(value)
    elif isinstance(value, dict):
        out.append(b"d%d;" % len(value))
        for key, item in value.items():
            pack(key, out)
            pack(item, out)
    elif isinstance(value, (list, tuple, set, frozenset)):
        kind = next(k for t, k in CONTAINERS if isinstance(value, t))
        out.append(kind + b"%d;" % len(value))
        for item in value:
            pack(item, out)
    elif hasattr(value, "item") and getattr(value, "shape", None) == ():
        pack(value.item(), out)
    else:
        raise Opaque(type(value).__name__)


CONTAINERS = [(list, b"l"), (tuple, b"t"), (set, b"S"), (frozenset, b"Z")]
MAKE = {kind: make for make, kind in CONTAINERS}
CONSTANTS = {b"N": None, b"T": True, b"F": False}


def unpack(data, at=0, depth=0):
    """The value at an offset, and the offset behind it."""
    kind = data[at:at + 1]
    if kind in CONSTANTS:
        return CONSTANTS[kind], at + 1
    if kind == b"f":
        return struct.unpack_from("<d", data, at + 1)[0], at + 9
    if kind == b"c":
        return complex(*struct.unpack_from("<dd", data, at + 1)), at + 17
    end = data.index(b";", at)
    number, end = int(data[at + 1:end], 16 if kind == b"i" else 10), end + 1
    if kind == b"i":
        return number, end
    if number < 0 or number > len(data) - end or depth > 200:
        raise ValueError
    if kind in (b"s", b"b"):
        piece = data[end:end + number]
        return (piece.decode("utf-8", "surrogatepass") if kind == b"s" else piece), end + number
    items = []
    for _ in range(number * (2 if kind == b"d" else 1)):
        item, end = unpack(data, end, depth + 1)
        items.append(item)
    return (dict(zip(items[::2], items[1::2])) if kind == b"d" else MAKE[kind](items)), end


def packed(value):
    out = []
    pack(value, out)
    return b"".join(out)


def describe(error):
    """What a report says of an exception: its type, and its number where it has one."""
    name = type(error).__name__
    number = getattr(error, "errno", None)
    if name == "RuntimeError" and "start new thread" in str(error):
        number = errno.EAGAIN
    return b"E%d;" % (number if isinstance(number, int) else 0) + name.encode("utf-8", "replace")


# The process that runs a program.


def limit(cpu, most, memory, output, threads):
    values = {
        resource.RLIMIT_CPU: (cpu, most),
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_FSIZE: (output, output),
        resource.RLIMIT_NOFILE: (64, 64),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
    }
    if threads:
        # Beside the server, the checker and the main thread.
        values[resource.RLIMIT_NPROC] = (threads + 3, threads + 3)
    for name, value in values.items():
        resource.setrlimit(name, value)
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = 96 << 20
    if hard == resource.RLIM_INFINITY or hard >= stack:
        resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))


def lock():
    """Two filters of system calls, for good: the second forbids a third."""
    for program in filters:
        program = program.replace(PID, os.getpid().to_bytes(4, "little"))
        data = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(data))
        if prctl(22, 2, head, 0, 0) != 0:
            os._exit(71)


def finish(report):
    write(REPORT, report)
    os._exit(0)


def child(mode, library, limits, out, report, null, pipes):
    program, extra = take(SOCKET).decode(), take(SOCKET)
    stdin = null
    if mode == STDIN:
        stdin = os.memfd_create("stdin")
        write(stdin, extra)
        os.lseek(stdin, 0, os.SEEK_SET)
    # Out of the way of the numbers that they get.
    fds = [os.dup(fd) for fd in (stdin, out, null, report, *pipes)]
    high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
    for i, fd in enumerate(high):
        os.dup2(fd, i)
    os.closerange(len(high), 256)
    if mode == CHECK:
        os.write(RESPONSE, b"r")
    random.seed(0)
    sys.argv[:], sys.path[:] = ["program.py"], [path for path in sys.path if path]
    name = "__main__" if mode == STDIN else "solution"
    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    if library:
        module.__dict__["__builtins__"] = NAMES
        sys.setrecursionlimit(50000)
    limit(*limits)
    lock()
    try:
        try:
            code = compile(program, "program.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            finish(b"S")
        try:
            exec(code, module.__dict__)
        except SystemExit:
            if mode == CHECK:
                raise
        if mode == CHECK:
            answer(module, extra.decode())
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        finish(b"D")
    except BaseException as error:
        finish(describe(error))


def answer(module, entry):
    """Calls of the program's function until the checker has enough."""
    owner = module
    if isinstance(getattr(module, "Solution", None), type) and hasattr(module.Solution, entry):
        owner = module.Solution()
    function = getattr(owner, entry, None)
    if not callable(function):
        finish(b"M")
    while True:
        try:
            values, named = unpack(take(REQUEST))[0]
        except EOFError:
            os._exit(0)
        try:
            response = b"R" + packed(function(*values, **named))
        except Opaque as error:
            response = b"V" + str(error).encode("utf-8", "replace")
        except BaseException as error:
            response = describe(error)
        give(RESPONSE, response)


# The process that judges a function.


class Ended(BaseException):
    """The child has ended."""


class Verdict(BaseException):
    """The child has not done what it should, whatever the test thinks of it."""


class Candidate:
    def __init__(self, pid, cpu, wall, most, request, response):
        self.pid, self.cpu, self.wall, self.most = pid, cpu, wall, most
        self.request, self.response, self.calls = request, response, 0
        self.poll = select.poll()
        self.poll.register(response, select.POLLIN)

    def __call__(self, *values, **named):
        self.calls += 1
        try:
            begin = self.used() if self.calls > 1 else 0
            until = time.monotonic() + self.wall
            soft = math.ceil(begin) + self.cpu
            resource.prlimit(self.pid, resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
            give(self.request, packed((values, named)))
            size = LENGTH.unpack(self.receive(LENGTH.size, begin, until))[0]
            if size > self.most:
                raise Verdict(b"L")
            response = self.receive(size, begin, until)
            if self.used() - begin >= self.cpu:
                raise Verdict(b"T")
        except (EOFError, OSError):
            raise Ended
        kind, rest = response[:1], response[1:]
        if kind == b"R":
            return unpack(rest)[0]
        if kind == b"V":
            raise Verdict(response)
        raise theirs(response)

    def used(self):
        """CPU seconds of the child so far."""
        return time.clock_gettime_ns((~self.pid << 3) | 2) / 1e9

    def receive(self, size, begin, until):
        data = bytearray()
        while len(data) < size:
            # A child that ignores its limit can have used it up no sooner than this.
            spare = begin + self.cpu - self.used()
            left = min(spare + 0.1, until - time.monotonic())
            if not self.poll.poll(max(0, left) * 1000):
                if self.used() - begin >= self.cpu:
                    raise Verdict(b"T")
                if time.monotonic() >= until:
                    raise Verdict(b"W")
                continue
            piece = os.read(self.response, min(size - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)


def theirs(response):
    """The exception that the program raised, for a test that waits for it."""
    name = response.partition(b";")[2].decode("utf-8", "replace")
    kind = getattr(builtins, name, None)
    ends = (StopIteration, StopAsyncIteration, GeneratorExit)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)) or issubclass(kind, ends):
        # One of the test's own loops would take these for its end.
        kind = RuntimeError
    try:
        error = kind("raised by the program")
    except TypeError:
        error = RuntimeError(name)
    error.response = response
    return error


def define(text, names):
    """Runs Python that may end in a function without a body."""
    try:
        code = compile(text, "prompt", "exec")
    except SyntaxError:
        code = compile(text.rstrip() + "\n    pass\n", "prompt", "exec")
    exec(code, names)


def checker(pid, wall, limits, request, response, report):
    try:
        read(response, 1)
    except EOFError:
        os._exit(70)
    prompt, source, entry, data = (take(SOCKET) for _ in range(4))
    cpu, _, memory, output, threads = limits
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    candidate = Candidate(pid, cpu, wall, output, request, response)
    names = {"__name__": "check", "DATA": data}
    code, verdict = 0, b"D"
    try:
        define(prompt.decode(), names)
        names[entry.decode()] = candidate
        exec(source.decode(), names)
        check = names["check"]
    except Exception:
        verdict, check = b"B", lambda candidate: None
    try:
        check(candidate)
    except Ended:
        code, verdict = GONE, b""
    except Verdict as error:
        verdict = error.args[0]
    except BaseException as error:
        verdict = getattr(error, "response", b"A")
    write(report, b"%s\0%d" % (verdict, candidate.calls))
    os._exit(code)


# The server.


def wait(pid, until):
    """Whether the process ends in time. Ends with triad."""
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(SOCKET, 0)
    ended = False
    while not ended and time.monotonic() < until:
        for fd, _ in poll.poll(max(0, until - time.monotonic()) * 1000 + 1):
            if fd == SOCKET:
                os._exit(0)
            ended = True
    os.close(pidfd)
    return ended


def end(pid):
    """Ends and reaps a process: how it had ended, and its CPU time."""
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    used = int((usage.ru_utime + usage.ru_stime) * 1e6)
    if os.WIFSIGNALED(status):
        return SIGNALLED, os.WTERMSIG(status), used
    return EXITED, os.WEXITSTATUS(status), used


def fork(run, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            run(*arguments)
            os._exit(0)
        finally:
            os._exit(70)
    return pid


def serve(mode, library, cpu, wall, calls, *rest):
    wall /= 1000
    until = time.monotonic() + wall * (calls + 1 if mode == CHECK else 1)
    # The checker moves a child's limit of CPU time on with every call.
    limits = (cpu, resource.RLIM_INFINITY if mode == CHECK else cpu + 1, *rest)
    out, report, pipes = os.memfd_create("stdout"), os.memfd_create("report"), []
    if mode == CHECK:
        # Request to read and to write, response to read and to write.
        pipes = [*os.pipe(), *os.pipe()]
    program = fork(child, mode, library, limits, out, report, NULL, pipes[::3])
    if mode == STDIN:
        in_time = wait(program, until)
        how, code, used = end(program)
        texts = [report]
    else:
        os.close(pipes[0])
        os.close(pipes[3])
        judgement = os.memfd_create("judgement")
        lead = fork(checker, program, wall, limits, pipes[1], pipes[2], judgement)
        in_time = wait(lead, until)
        how, code, _ = end(lead)
        texts = [judgement]
        if in_time and how == EXITED and code == GONE:
            # What the child says of its own end; how far it had come, the checker.
            in_time = wait(program, until)
            how, code, used = end(program)
            how = LEFT if how == EXITED else how
            texts = [report, judgement]
        else:
            _, _, used = end(program)
        for fd in {pipes[1], pipes[2], report} - set(texts):
            os.close(fd)
    if not in_time:
        how = WALL
    elif how != SIGNALLED and code in (70, 71):
        how = LOST
    most = rest[1]
    sizes = [min(os.fstat(fd).st_size, most) for fd in (*texts, out)]
    write(SOCKET, REPLY.pack(how, code, used, sum(sizes[:-1]), sizes[-1]))
    for fd, size in zip((*texts, out), sizes):
        at = 0
        while at < size:
            at += os.sendfile(SOCKET, fd, at, size - at) or os._exit(0)
        os.close(fd)


NULL = os.open("/dev/null", os.O_RDWR)
# No other process may look into this one, nor into those it forks, unless it is privileged.
prctl(4, 0, 0, 0, 0)
prctl(38, 1, 0, 0, 0)
os.close(os.pidfd_open(os.getpid()))
gc.collect()
gc.freeze()
give(SOCKET, ("%d.%d.%d" % sys.version_info[:3]).encode())
while True:
    try:
        header = read(SOCKET, HEADER.size)
    except (EOFError, OSError):
        break
    serve(*HEADER.unpack(header))
