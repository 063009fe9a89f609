"""Quintet's commands in lldb.

`quintet debug --with lldb` loads this text behind quintet.py, which has what the commands show.
"""
import shlex

import lldb


class Lldb(Host):
    # Where the command that is carried out writes.
    result = None

    def target(self):
        return lldb.debugger.GetSelectedTarget()

    def pid(self):
        return self.target().GetProcess().GetProcessID()

    def read(self, address, length):
        error = lldb.SBError()
        memory = self.target().GetProcess().ReadMemory(address, length, error)
        if not error.Success():
            raise Failed("Cannot read %d bytes at %#x: %s" % (length, address, error.GetCString()))
        return memory

    def say(self, line):
        self.result.AppendMessage(line)

    def evaluate(self, text):
        thread = self.target().GetProcess().GetSelectedThread()
        value = thread.GetSelectedFrame().EvaluateExpression(text)
        if not value.GetError().Success():
            raise Failed(value.GetError().GetCString().strip())
        return value.GetValueAsUnsigned() & MASK

    def threads(self):
        for thread in self.target().GetProcess():
            frame = thread.GetFrameAtIndex(0)
            yield frame.GetPC(), lambda name: frame.FindRegister(name).GetValueAsUnsigned() & MASK

    def source_of(self, mark):
        name = mark.rsplit("/", 1)[1]
        for module in self.target().module_iter():
            for unit in module.FindCompileUnits(lldb.SBFileSpec(name, False)):
                path = unit.GetCompileUnit().GetFileSpec().fullpath
                if path.endswith("/" + mark):
                    return path
            for n in range(module.GetNumCompileUnits()):
                unit = module.GetCompileUnitAtIndex(n)
                for m in range(unit.GetNumSupportFiles()):
                    path = unit.GetSupportFileAtIndex(m).fullpath or ""
                    if path.endswith("/" + mark):
                        return path
        return None

    def find_sources(self, before, now):
        result = lldb.SBCommandReturnObject()
        order = "settings set target.source-map %s %s" % (shlex.quote(before), shlex.quote(now))
        lldb.debugger.GetCommandInterpreter().HandleCommand(order, result)
        if not result.Succeeded():
            raise Failed(result.GetError().strip())


def quintet(debugger, argument, result, _):
    """Looks at a process of Quintet: type `quintet` alone for the list."""
    host.result = result
    name, _, rest = argument.strip().partition(" ")
    try:
        part = next((part for part in PARTS if part.usage.split()[0] == name), None)
        if part is not None:
            part.show(rest.strip())
        elif name:
            raise Failed(no_part(name))
        else:
            overview()
    except Failed as failed:
        result.SetError(str(failed))


host = Lldb()
lldb.debugger.HandleCommand("command script add -f quintet quintet")
