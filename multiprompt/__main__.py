from multiprompt.cli.main import main

main()
