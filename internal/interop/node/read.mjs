// Reads INBOX with imapflow and prints what it finds as JSON:
// read.mjs HOST PORT SECURE USER PASS CAFILE SUBJECT
import { readFileSync } from 'node:fs';
import { ImapFlow } from 'imapflow';

const [host, port, secure, user, pass, ca, subject] = process.argv.slice(2);
const client = new ImapFlow({
  host, port: Number(port), secure: secure === 'true', logger: false,
  auth: { user, pass }, tls: { ca: readFileSync(ca), servername: 'localhost' },
});
await client.connect();
const lock = await client.getMailboxLock('INBOX');
const out = {};
try {
  out.exists = client.mailbox.exists;
  const uids = await client.search({ header: { subject } }, { uid: true });
  out.found = uids.length;
  const m = await client.fetchOne(String(uids.at(-1)), {
    uid: true, flags: true, envelope: true, bodyStructure: true, size: true, source: true, internalDate: true,
  }, { uid: true });
  out.subject = m.envelope.subject;
  out.from = m.envelope.from[0].name;
  out.type = m.bodyStructure.type;
  out.parts = m.bodyStructure.childNodes?.map((n) => n.type);
  out.fileName = m.bodyStructure.childNodes?.at(-1)?.dispositionParameters?.filename;
  out.sizeAgrees = m.size === m.source.length;
  const part = await client.download(String(m.uid), '2', { uid: true });
  let text = '';
  for await (const chunk of part.content) text += chunk.toString();
  out.attachment = text;
  await client.messageFlagsAdd(String(m.uid), ['\\Flagged', '$Label1'], { uid: true });
  const again = await client.fetchOne(String(m.uid), { flags: true }, { uid: true });
  out.flags = [...again.flags].sort();
  const created = await client.mailboxCreate(['Projects', 'Größe']);
  out.created = created.path;
  const moved = await client.messageMove(String(m.uid), created.path, { uid: true });
  out.moved = moved.uidMap.size;
  out.status = (await client.status(created.path, { messages: true, uidNext: true })).messages;
  out.list = (await client.list()).map((b) => b.path).sort();
} finally {
  lock.release();
}
await client.logout();
console.log(JSON.stringify(out));
