"""The light core: config classes, loading, overriding, showing, records. Imports the standard library, attrs, cattrs.

base → values, source      the language: metaclass, options, derived values, origins
names, origin              what options are called and a wrong name was meant to be; where a value was written
schema                     every option of the library
resolve, override          a class to an instance tree and its rows; one more subclass
modules                    running users' modules: served from one workspace, mistakes told with their place
load                       the workspace, names to classes
diff, render, record       what differs, how it looks, how it is written down
codegen                    the same values as one flat module
api                        the same for scripts and notebooks
"""
