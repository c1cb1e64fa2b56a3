// Receives mail with smtp-server and prints each message: receive.mjs CERT KEY USER PASS
import { readFileSync } from 'node:fs';
import { SMTPServer } from 'smtp-server';

const [cert, key, user, pass] = process.argv.slice(2);
const server = new SMTPServer({
  cert: readFileSync(cert), key: readFileSync(key), authMethods: ['PLAIN', 'LOGIN', 'CRAM-MD5'],
  onAuth(auth, session, done) {
    if (auth.username === user && (auth.password === pass || auth.validatePassword?.(pass))) return done(null, { user });
    done(new Error('no'));
  },
  onRcptTo(address, session, done) {
    if (address.address.startsWith('refused@')) {
      const err = new Error('no such user');
      err.responseCode = 550;
      return done(err);
    }
    done();
  },
  onData(stream, session, done) {
    const chunks = [];
    stream.on('data', (c) => chunks.push(c));
    stream.on('end', () => {
      console.log(JSON.stringify({ user: session.user, tls: session.secure, from: session.envelope.mailFrom.address,
        to: session.envelope.rcptTo.map((r) => r.address), text: Buffer.concat(chunks).toString() }));
      done();
    });
  },
});
server.on('error', (e) => console.error(e.message));
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.server.address().port}`));
