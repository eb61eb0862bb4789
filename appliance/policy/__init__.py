"""From policy text to who may reach whom: ``text``, ``engine``, ``answers``; ``answers.admission`` is the gate."""
