# Writes version.cc; runs in every build, so that the commit is the one that was built. The file
# stays as it is where nothing differs. Set: SOURCE, OUTPUT, VERSION, COMMIT, CPU, GPU.
if(COMMIT STREQUAL "")
  execute_process(COMMAND git -C "${SOURCE}" describe --always --dirty --abbrev=12 --exclude=*
    OUTPUT_VARIABLE COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    set(COMMIT unknown)  # an archive, or no git
  endif()
endif()
string(TIMESTAMP BUILD_DATE "%Y-%m-%d" UTC)  # or the day of SOURCE_DATE_EPOCH
configure_file("${SOURCE}/server/version.cc.in" "${OUTPUT}" @ONLY)
