# Reads messages with Python's email package, one file each, and prints a line
# of JSON for each: messages.py FILE...
import email, email.policy, hashlib, json, sys

for name in sys.argv[1:]:
    with open(name, 'rb') as f:
        m = email.message_from_bytes(f.read(), policy=email.policy.default)
    leaves, defects = [], [str(d) for d in m.defects]
    for p in m.walk():
        defects += [str(d) for d in p.defects]
        if p.is_multipart():
            continue
        b = p.get_payload(decode=True)
        if p.get_content_maintype() == 'text':
            b = b.decode(p.get_content_charset('utf-8')).replace('\r\n', '\n').rstrip('\n').encode()
        leaves.append({'Type': p.get_content_type(), 'Name': p.get_filename() or '', 'Sum': hashlib.sha256(b).hexdigest()})
    print(json.dumps({
        'Subject': str(m['subject']), 'From': m['from'].addresses[0].display_name,
        'To': [a.addr_spec for a in m['to'].addresses], 'Leaves': leaves, 'Defects': defects,
    }))
