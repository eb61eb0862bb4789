"""How a box is laid out: what the NixOS module and the Ansible role both put on a machine.

``facts`` has the constants, ``plan`` derives from a site file what this site needs, ``units`` and
``firewall`` write it as text, ``render`` joins everything. Not for putting it on a machine, and not
for what the server does: nothing here is imported by it. Pure but for reading the site file.
"""
