"""What Quintet's commands show of one of its processes, whatever debugger asks.

Behind a line that sets TABLE (coordinator/src/debug/table.rs): no offset is written down here. Behind this text comes that of the
debugger (quintet-gdb.py, quintet-lldb.py), which sets `host`: the process's memory and registers, and where to write. Nothing in the
process is called or changed; /proc says what is mapped.
"""
import os
import struct
import time

MASK = (1 << 64) - 1


class Failed(Exception):
    """What cannot be shown, in a sentence."""


class Host:
    """What a debugger has to offer."""

    def pid(self):
        """Number of the process; None without one."""

    def read(self, address, length):
        """Bytes of its memory."""

    def say(self, line):
        """Shows a line."""

    def evaluate(self, text):
        """The number that an expression of the debugger's is."""

    def threads(self):
        """Of each thread the program counter, and a function from a register's name to its value."""

    def source_of(self, mark):
        """Where the compiler found the file that is `mark` in the sources; None when no line table says so."""

    def find_sources(self, before, now):
        """Has sources looked for in another directory."""


def pid():
    number = host.pid()
    if not number:
        raise Failed("No process is attached.")
    return number


def read(address, length):
    return bytes(host.read(address & MASK, length))


def say(text):
    host.say(text)


def word(address, size=8):
    return int.from_bytes(read(address, size), "little")


class Maps:
    """What is mapped where: (start, end, permissions, offset in the file, name)."""

    def __init__(self):
        self.all = []
        with open("/proc/%d/maps" % pid()) as lines:
            for line in lines:
                span, rights, offset, _, _, *name = line.rstrip("\n").split(None, 5)
                start, end = (int(n, 16) for n in span.split("-"))
                self.all.append((start, end, rights, int(offset, 16), name[0] if name else ""))

    def file(self, name, offset):
        """Address of a byte of a shared file, by its offset from the file's head; None when it is not mapped."""
        offset += TABLE["files"][name] + TABLE["head"]
        return self.raw(name, offset)

    def raw(self, name, offset):
        for start, end, _, at, path in self.all:
            if path.startswith("/memfd:%s (" % name) and at <= offset < at + end - start:
                return start + offset - at
        return None

    def name(self, address):
        """Name of the file at an address, and the offset from its head's end where it is a shared file."""
        for start, end, _, at, path in self.all:
            if start <= address < end and path.startswith("/memfd:"):
                name = path[len("/memfd:"):].rsplit(" (", 1)[0]
                offset = at + address - start
                if name in TABLE["files"]:
                    offset -= TABLE["files"][name] + TABLE["head"]
                return name, offset
        return None


def maps():
    """The maps, of a process of this build."""
    found = Maps()
    for name, start in TABLE["files"].items():
        at = found.raw(name, start + TABLE["layout_offset"])
        if at is not None:
            if word(at) != TABLE["layout_hash"]:
                raise Failed("This process is of another build than the quintet that started the debugger.")
            return found
    raise Failed("No shared file is mapped: not a Quintet process, one that is starting, or the portable back end.")


def regions(name):
    return [r for r in TABLE["regions"] if r["name"] == name]


class Part:
    """A command; the first line of its description is what the list says."""

    usage = ""


class Status(Part):
    """The status words of every process whose control file is mapped here."""

    usage = "status"

    def show(self, _):
        found = maps()
        for role in TABLE["roles"]:
            region = next(r for r in regions("status") if r["file"] == role["control"])
            at = found.file(region["file"], region["offset"])
            if at is None:
                say("%s: not mapped here" % role["name"])
                continue
            say("%s:" % role["name"])
            for entry in TABLE["status"]:
                if role["name"] not in entry["owners"]:
                    continue
                value = word(at + 4 * entry["index"], 4)
                meaning = TABLE["kinds"].get(entry["kind"], {}).get(str(value))
                say("  %-20s %10d%s" % (entry["name"], value, "  " + meaning if meaning else ""))


class Rings(Part):
    """Records, bytes and cursors of the rings that are mapped here; `all`: those too that nothing went through."""

    usage = "rings [all]"

    def show(self, argument):
        found = maps()
        say("%-18s %10s %10s %8s %9s %10s %10s" % ("ring", "pushed", "popped", "waiting", "capacity", "tail", "head"))
        for ring in TABLE["rings"]:
            tail = found.file(ring["file"], ring["offset"])
            head = found.file(ring["head_file"], ring["head_offset"])
            if tail is None and head is None:
                continue
            if not (ring["reported"] or argument or any(word(at) for at in (tail, head) if at)):
                continue
            ends = [None if at is None else (word(at) >> 32, word(at) & 0xFFFFFFFF) for at in (tail, head)]
            waiting = "-" if None in ends else str((ends[0][1] - ends[1][1]) & 0xFFFFFFFF)
            (pushed, tail), (popped, head) = (("-", "-") if e is None else e for e in ends)
            say("%-18s %10s %10s %8s %9d %10s %10s" % (ring["name"], pushed, popped, waiting, ring["capacity"], tail, head))


class Wires(Part):
    """Interrupt lines of io-worker that are high or have had an edge."""

    usage = "wires"

    def show(self, _):
        wires = TABLE["wires"]
        at = maps().file(wires["file"], wires["offset"])
        if at is None:
            raise Failed("The wires are not mapped here; the cpu- and the io-worker and the coordinator have them.")
        idle = True
        for line, (value,) in enumerate(struct.iter_unpack("<I", read(at, 4 * wires["lines"]))):
            if value:
                idle = False
                say("line %3d  %-4s  %d edges" % (line, "high" if value & 1 else "low", value >> 1))
        if idle:
            say("No line is high or has had an edge.")


class Clock(Part):
    """VM time, and whether it runs."""

    usage = "clock"

    def show(self, _):
        clock = TABLE["clock"]
        at = maps().file(clock["file"], clock["offset"])
        if at is None:
            raise Failed("The clock is not mapped here.")
        sequence = word(at, 4)
        state, value = word(at + clock["record"]), word(at + clock["record"] + 8)
        if sequence & 1:
            say("The clock is being written.")
        runs = state == clock["running"]
        say("VM time %s (%s)" % (seconds(time.monotonic_ns() - value if runs else value), "runs" if runs else "stands"))


class Sleepers(Part):
    """Doorbells: who sleeps, and who has been rung."""

    usage = "sleepers"

    def show(self, _):
        found = maps()
        for sleeper in TABLE["sleepers"]:
            bell = found.file(sleeper["bell_file"], sleeper["bell"])
            flag = found.file(sleeper["flag_file"], sleeper["flag"])
            if bell is None or flag is None:
                continue
            state = "asleep" if word(flag, 4) else "awake"
            say("%-12s %-6s  %s" % (sleeper["name"], state, "rung" if word(bell, 4) else "-"))


def seconds(nanos):
    return "%d.%09d s" % (nanos // 10**9, nanos % 10**9)


class Anchor:
    """What the cpu-worker shows of its vCPU (cpu-worker/src/jit/shown.rs)."""

    def __init__(self, at):
        names = TABLE["anchor"]["words"]
        values = struct.unpack("<%dQ" % len(names), read(at, 8 * len(names)))
        self.__dict__.update(zip(names, values))
        self.offsets, self.sizes, self.hosts = {}, {}, {}
        if not self.text:
            return
        for line in read(self.text, self.text_len).decode().splitlines():
            what, name, *rest = line.split()
            if what == "host":
                self.hosts[name] = rest[0]
            elif what == "size":
                self.sizes[name] = int(rest[0])
            else:
                self.offsets.setdefault(what, {})[name] = tuple(int(n) for n in rest)

    def field(self, base, what, name):
        offset, size = self.offsets[what][name]
        return word(base + offset, size)

    def in_code(self, address):
        return self.code <= address < self.code + self.code_len

    def in_routines(self, address):
        return self.code <= address < self.code + self.routines

    def natives(self):
        """Every translation, as a dictionary."""
        if not self.natives_table:
            return
        fields, size = self.offsets["native"], self.sizes["native"]
        for region in range(self.sizes["regions"]):
            shown = self.natives_table + region * self.sizes["shown"]
            first, count = (self.field(shown, "shown", name) for name in ("first", "count"))
            if not first or not count:
                continue
            whole = read(first, size * count)
            for at in range(0, len(whole), size):
                yield {
                    name: int.from_bytes(whole[at + offset:at + offset + length], "little")
                    for name, (offset, length) in fields.items()
                }

    def translation(self, address):
        for native in self.natives():
            if native["entry"] <= address < native["entry"] + native["len"]:
                return native
        return None


# The section's address in the program, by the program; and the text, which does not change, by its address.
found_sections = {}


def section():
    """Address of the anchor in this process; None in a program that has none."""
    process = "/proc/%d/exe" % pid()
    path = os.readlink(process)
    key = (pid(), path)
    if key not in found_sections:
        found_sections[key] = find_section(process)
    found = found_sections[key]
    if found is None:
        return None
    fixed, address = found
    if fixed:
        return address
    for start, _, _, at, name in Maps().all:
        if name == path and at == 0:
            return start + address
    return None


def find_section(path):
    """Whether the program lies at fixed addresses, and the section's address by its headers (ELF-64, System V ABI)."""
    with open(path, "rb") as program:
        header = program.read(64)
        kind, = struct.unpack_from("<H", header, 16)
        table, = struct.unpack_from("<Q", header, 40)
        size, count, names = struct.unpack_from("<HHH", header, 58)
        program.seek(table)
        sections = [struct.unpack("<IIQQQQIIQQ", program.read(size)[:64]) for _ in range(count)]
        program.seek(sections[names][4])
        strings = program.read(sections[names][5])
        for one in sections:
            name = strings[one[0]:strings.index(b"\0", one[0])].decode()
            if name == TABLE["anchor"]["section"]:
                return kind == 2, one[3]
    return None


def anchor():
    at = section()
    magic = TABLE["anchor"]["magic"].encode()
    if at is None or read(at, len(magic)) != magic:
        raise Failed("There is no vCPU in this process; the cpu-worker has it.")
    found = Anchor(at + len(magic))
    if not found.state:
        raise Failed("This process has no vCPU yet, or runs modules.")
    return found


FLAGS = "CF 1 PF 3 AF 5 ZF SF TF IF DF OF 12 13 NT 15 RF VM AC VIF VIP ID".split()


class Regs(Part):
    """The guest's registers (cpu-worker)."""

    usage = "regs"

    def show(self, _):
        a = anchor()
        frame_registers = list(a.hosts.values())

        def look(pc, register):
            if not a.in_code(pc) or a.in_routines(pc):
                return None
            values = {r: register(r) for r in frame_registers}
            return pc, values

        native = next(filter(None, (look(*thread) for thread in host.threads())), None)
        bits = 16 << a.field(a.state, "vcpu", "code_size")
        general = {name: a.field(a.state, "state", name) for name in a.offsets["state"] if "." not in name}
        if native:
            pc, values = native
            block = a.translation(pc)
            general.update({guest: values[host] for guest, host in a.hosts.items() if bits == 64 or not guest[1:].isdigit()})
            if bits == 64:
                general.update({guest: a.field(a.frame, "home", guest) for guest in a.offsets["home"]})
            where = "the translation of %#x" % block["rip"] if block else "translated code"
            if block:
                general["rip"] = block["rip"]
            say("vCPU in %s, %d-bit code; rip is that of the block, arithmetic flags are as last stored" % (where, bits))
        else:
            say("vCPU between instructions or in a handler, %d-bit code" % bits)
        order = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"] + ["r%d" % n for n in range(8, 16)]
        for row in range(0, 16 if bits == 64 else 8, 4):
            say("  ".join("%-3s %016x" % (name, general[name]) for name in order[row:row + 4]))
        flags = self.flags(a)
        names = " ".join(name for bit, name in enumerate(FLAGS) if flags >> bit & 1 and not name.isdigit())
        say("rip %016x  rflags %08x [%s]  cpl %d" % (general["rip"], flags, names, a.field(a.state, "byte", "cpl")))
        for name, (offset, _) in a.offsets["segment"].items():
            part = {p: a.field(a.state + offset, "hidden", p) for p in a.offsets["hidden"]}
            say("%-4s %04x  base %016x  limit %08x  attr %05x" % (name, part["selector"], part["base"], part["limit"], part["attr"]))
        for name in ("gdtr", "idtr"):
            base, limit = (a.field(a.state, "table", "%s.%s" % (name, p)) for p in ("base", "limit"))
            say("%-9s  base %016x  limit %08x" % (name, base, limit))
        for name in a.offsets["control"]:
            say("%-14s %016x" % (name, a.field(a.state, "control", name)))

    @staticmethod
    def flags(a):
        """RFLAGS from the lazy form of cpu-worker/src/state/flags.rs."""
        result, aux, system = (a.field(a.state, "state", "flags." + n) for n in ("result", "aux", "system"))
        even = bin(result & 0xFF).count("1") % 2 == 0
        parity = even ^ bool(aux & 4)
        sign = bool(result >> 63) ^ bool(aux & 0x80)
        return system | 2 | aux & 0x811 | parity << 2 | (result == 0) << 6 | sign << 7


class Code(Part):
    """Guest code of an address in translated code, or translations of a guest address (rIP); without one, how many there are."""

    usage = "code [ADDRESS]"

    def show(self, argument):
        a = anchor()
        if not a.code:
            raise Failed("Everything is interpreted here.")
        if not argument.strip():
            each = list(a.natives())
            say("%d translations, %d bytes, at %#x-%#x" % (len(each), sum(n["len"] for n in each), a.code, a.code + a.code_len))
            return
        address = host.evaluate(argument)
        if a.in_routines(address):
            say("host %#x is in the routines that lead into and out of translated code" % address)
        elif a.in_code(address):
            native = a.translation(address)
            if native is None:
                raise Failed("Nothing is translated at %#x." % address)
            say("host %#x is %#x bytes into %s" % (address, address - native["entry"], self.text(native)))
        else:
            there = [n for n in a.natives() if (address - n["rip"]) & MASK < n["guest"]]
            for native in there:
                say("guest %#x is %#x bytes into %s" % (address, address - native["rip"], self.text(native)))
            if not there:
                say("guest %#x is not translated" % address)

    @staticmethod
    def text(n):
        return "the translation of guest %#x-%#x at host %#x-%#x (block %d, mode %d%s)" % (
            n["rip"], n["rip"] + n["guest"], n["entry"], n["entry"] + n["len"], n["block"], n["mode"],
            ", dropped" if n["buried"] else "")


class Source(Part):
    """Finds the sources in DIRECTORY, not where they were compiled."""

    usage = "source DIRECTORY"

    def show(self, directory):
        if not directory:
            raise Failed("quintet source DIRECTORY")
        # A file that is in every program, by its place in the sources.
        mark = TABLE["source_mark"]
        full = host.source_of(mark) or ""
        if not full.endswith("/" + mark):
            raise Failed("The line tables do not say where %s was." % mark)
        host.find_sources(full[:-len(mark) - 1], os.path.abspath(directory))


PARTS = [kind() for kind in (Status, Rings, Wires, Clock, Sleepers, Regs, Code, Source)]


def overview():
    for part in PARTS:
        say("quintet %-12s %s" % (part.usage, part.__doc__.splitlines()[0]))


def no_part(argument):
    return 'There is no "quintet %s"; `quintet` alone lists what there is.' % argument
