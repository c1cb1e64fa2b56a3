# Reads and writes mbox files and Maildirs with Python's mailbox module.
#   boxes.py read mbox|maildir PATH          prints a line of JSON a message
#   boxes.py write mbox|maildir PATH FILE... adds the messages
import hashlib, json, mailbox, sys

verb, kind, path = sys.argv[1:4]
box = mailbox.mbox(path) if kind == 'mbox' else mailbox.Maildir(path, create=True)
if verb == 'write':
    for name in sys.argv[4:]:
        with open(name, 'rb') as f:
            b = f.read().replace(b'\r\n', b'\n')
        if kind == 'mbox':
            m = mailbox.mboxMessage(b)
            m.set_from('ann@example.org Wed May  1 09:08:07 2024')
        else:
            m = mailbox.MaildirMessage(b)
            m.set_subdir('cur')
        m.set_flags('FR' if kind == 'mbox' else 'FS')
        box.add(m)
    box.flush()
else:
    for m in sorted(box, key=lambda m: m['x-number']):
        flags = ''.join(sorted(m.get_flags()))
        for h in ('status', 'x-status', 'x-keywords'):
            del m[h]
        print(json.dumps({'Number': m['x-number'], 'Flags': flags, 'From': m.get_from() if kind == 'mbox' else '',
                          'Body': m.as_bytes().split(b'\n\n', 1)[1].decode('latin-1')}))
