"""Starts ministack, and teaches it the two things template.yaml needs and it skips (as of 1.5.33).

`Method: ANY` of an API event becomes `x-amazon-apigateway-any-method` in the OpenAPI definition that SAM
generates; ministack imports the methods of HTTP only, though it can serve ANY.

`GatewayResponses` become `x-amazon-apigateway-gateway-responses` in it; ministack can serve them, too, but does not
import them.
"""

from ministack.app import main
from ministack.services import apigateway_v1

ANY_IN_OPENAPI = "x-amazon-apigateway-any-method"
GATEWAY_RESPONSES_IN_OPENAPI = "x-amazon-apigateway-gateway-responses"

import_path_item = apigateway_v1._import_path_item
import_rest_api = apigateway_v1._import_rest_api


def import_path_item_with_any(api_id, path, path_item, *security):
    path_item = {"any" if key == ANY_IN_OPENAPI else key: value for key, value in path_item.items()}
    import_path_item(api_id, path, path_item, *security)


def import_rest_api_with_gateway_responses(spec, *base_data):
    api_id = import_rest_api(spec, *base_data)
    for response_type, response in spec.get(GATEWAY_RESPONSES_IN_OPENAPI, {}).items():
        apigateway_v1._put_gateway_response(api_id, response_type, response)
    return api_id


apigateway_v1._OPENAPI_HTTP_METHODS.add("any")
apigateway_v1._import_path_item = import_path_item_with_any
apigateway_v1._import_rest_api = import_rest_api_with_gateway_responses

if __name__ == "__main__":
    main()
