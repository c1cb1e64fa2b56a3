// Reads messages with mailparser and prints a line of JSON for each:
// parse.mjs FILE...
import { readFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { simpleParser } from 'mailparser';

const sum = (b) => createHash('sha256').update(b).digest('hex');
for (const name of process.argv.slice(2)) {
  const m = await simpleParser(readFileSync(name), { skipImageLinks: true, skipTextToHtml: true, skipHtmlToText: true });
  console.log(JSON.stringify({
    Subject: m.subject ?? '', From: m.from.value[0].name, To: m.to.value.map((a) => a.address),
    Text: m.text ?? '', HTML: m.html || '',
    Leaves: m.attachments.map((a) => ({ Type: a.contentType, Name: a.filename ?? '', Sum: sum(a.content) })),
  }));
}
