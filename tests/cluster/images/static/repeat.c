/* repeat TEXT TIMES VALUE-FILE DATA-FILE [INPUT-FILE]: TEXT, TIMES times, into both files; the input behind the second. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static FILE *create(char *path) {
  for (char *at = path + 1; (at = strchr(at, '/')); *at++ = '/') {
    *at = 0;
    if (mkdir(path, 0777) && errno != EEXIST) perror(path);
  }
  FILE *file = fopen(path, "w");
  if (!file) perror(path), exit(3);
  return file;
}

int main(int count, char **words) {
  if (count < 5) return 2;
  FILE *value = create(words[3]), *data = create(words[4]), *input = count > 5 ? fopen(words[5], "r") : 0;
  for (int i = atoi(words[2]); i > 0; i--) fputs(words[1], value), fputs(words[1], data);
  for (int c; input && (c = getc(input)) != EOF;) putc(c, data);
  puts("repeated");
  return 0;
}
