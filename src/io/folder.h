/* folder.h - what files there are in a folder and below, and what became of them.  Layer: io.
 *
 * Files are known by what stat says of them; symbolic links are followed.  What cannot be read
 * counts as not there.  Does no more than stat: never reads a file. */
#ifndef LUNA_IO_FOLDER_H
#define LUNA_IO_FOLDER_H

#include <stddef.h>
#include <sys/stat.h>

typedef struct luna_file {
    char *path; /* the folder's, a slash, and the rest */
    struct stat is;
} luna_file;

/* Sorted by path.  Zero-initialised is an empty one. */
typedef struct luna_folder {
    luna_file *files;
    size_t n, room;
    struct stat *dirs; /* those that were entered */
    size_t n_dirs, room_dirs;
} luna_folder;

typedef void (*luna_folder_each)(void *user, const char *path);

/* Read the regular files whose names end in `suffix` into a zero-initialised folder.  `enter`,
 * called with each directory before it is listed, may be NULL. */
void luna_folder_read(luna_folder *folder, const char *path, const char *suffix,
                      luna_folder_each enter, void *user);

/* Call `changed` with each file that is in one of them only, or not the same in both. */
void luna_folder_compare(const luna_folder *before, const luna_folder *now,
                         luna_folder_each changed, void *user);

/* Is there such a file in it? */
int luna_folder_has(const luna_folder *folder, const char *path);

void luna_folder_free(luna_folder *folder);
#endif
