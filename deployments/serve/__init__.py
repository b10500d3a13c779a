"""`stepdown serve`: starts or joins Ray, runs the application until Ctrl-C, and stops what it started.

With it: HAProxy as the front door (haproxy.py) and its replacement while Ray restarts it (haproxy_stand_in.py), the end of
processes that outlive the server (process_cleanup.py), and the whole as a child process (background.py). May import `app` and
the rooms below. Must not know other commands of the command line, nor how a request is decided or answered.
"""
