"""`stepdown serve`: starts or joins Ray, runs the application until Ctrl-C, and stops what it started. With it: HAProxy as the
front door and its replacement while Ray restarts it, the end of leftover processes, and the whole as a child process.
May import `app` and the rooms below. Must not know the other commands, nor how a request is decided or answered.
"""
