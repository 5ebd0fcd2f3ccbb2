SELECT 'ä€😀', "Schlüssel" FROM "Größe" WHERE "Schlüssel" = -7
