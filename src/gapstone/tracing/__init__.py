"""What a forward pass did: its torch calls, its last feature map, what follows it, where positions lie and reach.

May import `heads`, `pooling` and what is below them.
"""
