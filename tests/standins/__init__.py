"""Stand-ins: archives in the vendors' formats around real content, for hosts whose servers tests cannot reach.

They prove the formats and the routes, not the vendors' own servers, compilers or archives; ``docs/coreos.md`` lists what is
thereby not proven.
"""
