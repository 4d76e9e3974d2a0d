# Runs the example of the README, which stands above, against a Redis at a socket.
#   python3 - SOCKET SKU LOCATION
# Debian's Python has no client for Redis: this is as much of one as the example needs.
import socket
import sys


class Redis:
    def __init__(self, path):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        self.stream = connection.makefile("rwb")

    def mget(self, *keys):
        words = [b"MGET"] + [key.encode() for key in keys]
        self.stream.write(b"*%d\r\n" % len(words))
        for word in words:
            self.stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
        self.stream.flush()
        return [self.value() for _ in range(self.length())]

    def length(self):
        return int(self.stream.readline()[1:])

    def value(self):
        length = self.length()
        return self.stream.read(length + 2)[:-2] if length >= 0 else None


print(json.dumps(show(Redis(sys.argv[1]), sys.argv[2], sys.argv[3])))
