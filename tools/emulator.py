"""Starts ministack, and teaches it the one thing template.yaml needs and it skips (as of 1.5.33).

`Method: ANY` of an API event becomes `x-amazon-apigateway-any-method` in the OpenAPI definition that SAM
generates; ministack imports the methods of HTTP only, though it can serve ANY.
"""

from ministack.app import main
from ministack.services import apigateway_v1

ANY_IN_OPENAPI = "x-amazon-apigateway-any-method"

import_path_item = apigateway_v1._import_path_item


def import_path_item_with_any(api_id, path, path_item, *security):
    path_item = {"any" if key == ANY_IN_OPENAPI else key: value for key, value in path_item.items()}
    import_path_item(api_id, path, path_item, *security)


apigateway_v1._OPENAPI_HTTP_METHODS.add("any")
apigateway_v1._import_path_item = import_path_item_with_any

if __name__ == "__main__":
    main()
