"""Quintet's commands and pretty printers in gdb.

`quintet debug` loads this text behind quintet.py, which has what the commands show.
"""
import gdb
import gdb.printing


class Gdb(Host):
    def pid(self):
        return gdb.selected_inferior().pid

    def read(self, address, length):
        return gdb.selected_inferior().read_memory(address, length)

    def say(self, line):
        gdb.write(line + "\n")

    def evaluate(self, text):
        return int(gdb.parse_and_eval(text)) & MASK

    def threads(self):
        before, frame = gdb.selected_thread(), gdb.selected_frame()
        try:
            for thread in gdb.selected_inferior().threads():
                thread.switch()
                newest = gdb.newest_frame()
                yield newest.pc(), lambda name: int(newest.read_register(name)) & MASK
        finally:
            before.switch()
            frame.select()

    def source_of(self, mark):
        try:
            _, places = gdb.decode_line("%s:1" % mark)
        except gdb.error as error:
            raise Failed("This program has no line tables: %s" % error)
        return next((p.symtab.fullname() for p in places or () if p.symtab), None)

    def find_sources(self, before, now):
        gdb.execute("set substitute-path %s %s" % (before, now))


class Quintet(gdb.Command):
    """Looks at a process of Quintet: type `quintet` alone for the list."""

    def __init__(self):
        super().__init__("quintet", gdb.COMMAND_DATA, prefix=True)

    def invoke(self, argument, from_tty):
        if argument:
            raise gdb.GdbError(no_part(argument))
        overview()


class Command(gdb.Command):
    """A part as a command of gdb's."""

    def __init__(self, part):
        self.part = part
        self.__doc__ = part.__doc__
        super().__init__("quintet " + part.usage.split()[0], gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        try:
            self.part.show(argument)
        except Failed as failed:
            raise gdb.GdbError(str(failed))


class Shown:
    """A pretty printer that gives one line."""

    def __init__(self, value, text):
        self.value, self.text = value, text

    def to_string(self):
        return self.text(self.value)


def newtype(value):
    return int(value["__0"]) & MASK


def view_text(value):
    value = value["__0"] if value.type.fields()[0].name == "__0" else value
    # Arc<Map>: a pointer to counts and the map.
    inner = value["map"]["ptr"]
    while inner.type.code != gdb.TYPE_CODE_PTR:
        inner = inner[inner.type.fields()[0]]
    base = inner.dereference()["data"]["base"]["pointer"]
    at, length = int(base) + int(value["start"]), int(value["len"])
    place = Maps().name(at)
    text = "%d bytes at %#x" % (length, at)
    return "%s (%s + %#x)" % (text, *place) if place else text


def address_text(value):
    return "%s(%#x)" % (value.type.name.rsplit("::", 1)[-1], newtype(value))


PRINTERS = {
    "addr::(GuestPhys|GuestLinear|RamOffset)": address_text,
    "time::VmTime": lambda v: "VmTime(%s)" % seconds(newtype(v)),
    "time::HostTime": lambda v: "HostTime(%s)" % seconds(newtype(v)),
    "wires::Wire": lambda v: "Wire(%s, %d edges)" % ("high" if v["high"] else "low", int(v["edges"])),
    "ring::Position": lambda v: "Position(record %d, cursor %#x)" % (int(v["number"]), int(v["cursor"])),
    "shm::view::(View|ViewMut)": view_text,
}


def install():
    global host
    host = Gdb()
    Quintet()
    for part in PARTS:
        Command(part)
    printers = gdb.printing.RegexpCollectionPrettyPrinter("quintet")
    for name, text in PRINTERS.items():
        printers.add_printer(name, "^(.*::)?%s$" % name, lambda value, text=text: Shown(value, text))
    gdb.printing.register_pretty_printer(None, printers, replace=True)


install()
