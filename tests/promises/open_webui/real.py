"""Open WebUI's own modules, without the gigabytes that they could do with.

Its tool loader, its specs, its way to call a tool and its MCP client are the real ones. Only these four of its modules
are empty here: they bring the built-in tools, logins and the settings of whole servers, and none of it is called.
"""

import importlib.abc
import importlib.machinery
import sys

EMPTY = ("open_webui.config", "open_webui.tools.builtin", "open_webui.utils.access_control", "open_webui.utils.oauth")


class Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in EMPTY else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        def name(wanted):
            if wanted.startswith("__"):
                raise AttributeError(wanted)

        module.__getattr__ = name


sys.meta_path.insert(0, Empty())
