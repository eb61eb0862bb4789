"""The install script of a release, on hosts with nothing on them, typed by somebody without Ansible."""
